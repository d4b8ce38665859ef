import java.io.IOException;
import java.util.Map;
import org.apache.lucene.index.IndexReader;
import org.apache.lucene.index.Term;
import org.apache.lucene.search.CollectionStatistics;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.TermStatistics;

/**
 * Searches an index that is a part of a collection, or holds deleted documents, by the statistics of the collection.
 *
 * <p>What Lucene's formulas are given is all that is changed, so that scores are to the last bit those of one index of
 * the whole collection. Python sets the numbers; Lucene has no other way in than a subclass, which Python cannot make.
 * CollectionSearcher.class beside this file is made of it by
 * `javac --release 17 -proc:none -g:none -cp anserini-...-fatjar.jar -d . CollectionSearcher.java`.
 */
public final class CollectionSearcher extends IndexSearcher {
  private final String field;
  private final long documents;
  private final long length;
  private final Map<String, String> frequencies;

  /**
   * @param documents how many documents of the collection have a term in the field, a decimal number as all here
   * @param length how many terms they have in it
   * @param frequencies in how many documents each term of the field stands; of terms that queries hold, at least
   */
  public CollectionSearcher(
      IndexReader reader, String field, String documents, String length, Map<String, String> frequencies) {
    super(reader);
    this.field = field;
    this.documents = Long.parseLong(documents);
    this.length = Long.parseLong(length);
    this.frequencies = frequencies;
  }

  @Override
  public CollectionStatistics collectionStatistics(String name) throws IOException {
    return field.equals(name) && documents > 0
        ? new CollectionStatistics(name, documents, documents, Math.max(length, documents), documents)
        : super.collectionStatistics(name);
  }

  @Override
  public TermStatistics termStatistics(Term term, int docFreq, long totalTermFreq) throws IOException {
    String known = field.equals(term.field()) ? frequencies.get(term.text()) : null;
    return known == null
        ? super.termStatistics(term, docFreq, totalTermFreq)
        : new TermStatistics(term.bytes(), Long.parseLong(known), Long.MAX_VALUE);
  }
}
