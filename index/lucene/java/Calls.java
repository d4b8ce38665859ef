package org.retriever;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.lucene.analysis.Analyzer;
import org.apache.lucene.analysis.TokenStream;
import org.apache.lucene.analysis.tokenattributes.CharTermAttribute;
import org.apache.lucene.index.IndexReader;
import org.apache.lucene.index.LeafReader;
import org.apache.lucene.index.LeafReaderContext;
import org.apache.lucene.index.NumericDocValues;
import org.apache.lucene.index.PostingsEnum;
import org.apache.lucene.index.ReaderUtil;
import org.apache.lucene.index.StoredFields;
import org.apache.lucene.index.Term;
import org.apache.lucene.index.Terms;
import org.apache.lucene.index.TermsEnum;
import org.apache.lucene.search.BooleanClause;
import org.apache.lucene.search.BooleanQuery;
import org.apache.lucene.search.BoostQuery;
import org.apache.lucene.search.DocIdSetIterator;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.QueryRescorer;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.search.ScoreMode;
import org.apache.lucene.search.Scorer;
import org.apache.lucene.search.Sort;
import org.apache.lucene.search.TermQuery;
import org.apache.lucene.search.TopDocs;
import org.apache.lucene.search.TopScoreDocCollector;
import org.apache.lucene.search.Weight;
import org.apache.lucene.util.Bits;
import org.apache.lucene.util.BytesRef;

/**
 * What Python asks of Lucene with every query, in one call each: a call from Python takes as long as some searches do.
 *
 * All methods are static, so that several threads of Python may call them at once. Numbers are little-endian.
 */
public final class Calls {
  private static final String RAW = "raw";
  private static final Set<String> STORED = Set.of(RAW);

  private Calls() {}

  /** Returns the terms that an analyser makes of a text with how often it makes each, as one query. */
  public static Query words(Analyzer analyzer, String field, String text) throws IOException {
    Map<String, Integer> counts = new HashMap<>();
    try (TokenStream stream = analyzer.tokenStream(field, text)) {
      CharTermAttribute term = stream.addAttribute(CharTermAttribute.class);
      stream.reset();
      while (stream.incrementToken()) {
        String word = term.toString();
        Integer before = counts.get(word);
        counts.put(word, before == null ? 1 : before + 1);
      }
      stream.end();
    }
    BooleanQuery.Builder builder = new BooleanQuery.Builder();
    for (Map.Entry<String, Integer> word : counts.entrySet()) {
      Query query = new TermQuery(new Term(field, word.getKey()));
      builder.add(new BoostQuery(query, word.getValue()), BooleanClause.Occur.SHOULD);
    }
    return builder.build();
  }

  /** Returns what `search` does for the terms that an analyser makes of a text. */
  public static byte[] searchWords(
      IndexSearcher searcher, Analyzer analyzer, String field, String text, Sort byScoreThenId, int count, int spare)
      throws IOException {
    return search(searcher, words(analyzer, field, text), byScoreThenId, count, spare);
  }

  /**
   * Returns the rows of the best hits, the first `count` by (score, id) among them: the number of hits as int32, their
   * rows as int64, their scores as float32.
   *
   * So many more hits, `spare`, usually show whether others tie with the last one that counts; where they do not show
   * it, ids decide.
   */
  public static byte[] search(IndexSearcher searcher, Query query, Sort byScoreThenId, int count, int spare)
      throws IOException {
    int most = mostHits(searcher);
    int limit = (int) Math.min((long) count + spare, most);
    ScoreDoc[] hits = best(searcher, query, limit);
    if (hits.length == limit && limit < most && hits[count - 1].score == hits[limit - 1].score) {
      // Hits beyond the last may tie with the last one that counts: then the smaller id wins.
      TopDocs sorted = searcher.search(query, count, byScoreThenId, true);
      hits = sorted.scoreDocs;
    }
    long[] rows = rows(searcher.getIndexReader(), hits);
    ByteBuffer out = ByteBuffer.allocate(4 + 12 * hits.length).order(ByteOrder.LITTLE_ENDIAN);
    out.putInt(hits.length);
    for (long row : rows) {
      out.putLong(row);
    }
    for (ScoreDoc hit : hits) {
      out.putFloat(hit.score);
    }
    return out.array();
  }

  /** Returns the best hits of a query: their number as int32, Lucene's document numbers as int32, scores as float32. */
  public static byte[] documents(IndexSearcher searcher, Query query, int count) throws IOException {
    return packed(best(searcher, query, Math.max(count, 1)));
  }

  /** Returns the best `count` hits as `documents` does, each with its score for a second query added. */
  public static byte[] inTwoSteps(IndexSearcher searcher, Query query, Query rest, int count) throws IOException {
    TopDocs found = topDocs(searcher, query, count);
    return packed(QueryRescorer.rescore(searcher, found, rest, 1.0, count).scoreDocs);
  }

  private static byte[] packed(ScoreDoc[] hits) {
    ByteBuffer out = ByteBuffer.allocate(4 + 8 * hits.length).order(ByteOrder.LITTLE_ENDIAN);
    out.putInt(hits.length);
    for (ScoreDoc hit : hits) {
      out.putInt(hit.doc);
    }
    for (ScoreDoc hit : hits) {
      out.putFloat(hit.score);
    }
    return out.array();
  }

  /**
   * Returns which document numbers a query finds, deleted ones too: how many numbers there are as int32, then a bit for
   * each, the first in the lowest.
   */
  public static byte[] matching(IndexSearcher searcher, Query query) throws IOException {
    Weight weight = searcher.createWeight(searcher.rewrite(query), ScoreMode.COMPLETE_NO_SCORES, 1);
    int count = searcher.getIndexReader().maxDoc();
    byte[] bits = new byte[4 + (count + 7) / 8];
    ByteBuffer.wrap(bits).order(ByteOrder.LITTLE_ENDIAN).putInt(count);
    for (LeafReaderContext leaf : searcher.getIndexReader().leaves()) {
      Scorer scorer = weight.scorer(leaf);
      if (scorer == null) {
        continue;
      }
      DocIdSetIterator docs = scorer.iterator();
      for (int doc = docs.nextDoc(); doc != DocIdSetIterator.NO_MORE_DOCS; doc = docs.nextDoc()) {
        int number = leaf.docBase + doc;
        bits[4 + (number >> 3)] |= (byte) (1 << (number & 7));
      }
    }
    return bits;
  }

  /** Returns the row of each document number that has one, in order, as int64: that of its document's first chunk. */
  public static byte[] firstRows(IndexReader reader) throws IOException {
    ByteBuffer out = ByteBuffer.allocate(8 * reader.maxDoc()).order(ByteOrder.LITTLE_ENDIAN);
    for (LeafReaderContext leaf : reader.leaves()) {
      NumericDocValues values = leaf.reader().getNumericDocValues("row");
      while (values != null && values.nextDoc() != DocIdSetIterator.NO_MORE_DOCS) {
        out.putLong(values.longValue());
      }
    }
    return Arrays.copyOf(out.array(), out.position());
  }

  private static ScoreDoc[] best(IndexSearcher searcher, Query query, int limit) throws IOException {
    return topDocs(searcher, query, limit).scoreDocs;
  }

  private static TopDocs topDocs(IndexSearcher searcher, Query query, int limit) throws IOException {
    // Nobody asks for the number of all hits: what cannot be among the best need not be counted.
    TopScoreDocCollector collector = TopScoreDocCollector.create(Math.min(limit, mostHits(searcher)), 1);
    searcher.search(query, collector);
    return collector.topDocs();
  }

  private static int mostHits(IndexSearcher searcher) {
    return Math.max(1, searcher.getIndexReader().maxDoc());
  }

  private static long[] rows(IndexReader reader, ScoreDoc[] hits) throws IOException {
    long[] order = new long[hits.length];  // the document above, the place below, so that both are sorted
    for (int i = 0; i < hits.length; i++) {
      order[i] = (long) hits[i].doc << 32 | i;
    }
    Arrays.sort(order);
    List<LeafReaderContext> leaves = reader.leaves();
    long[] rows = new long[hits.length];
    NumericDocValues values = null;
    LeafReaderContext leaf = null;
    for (long pair : order) {
      int doc = (int) (pair >>> 32);
      if (leaf == null || doc >= leaf.docBase + leaf.reader().maxDoc()) {
        leaf = leaves.get(ReaderUtil.subIndex(doc, leaves));
        values = leaf.reader().getNumericDocValues("row");
      }
      if (values == null || !values.advanceExact(doc - leaf.docBase)) {
        throw new IOException("a document has no row");
      }
      rows[(int) pair] = values.longValue();
    }
    return rows;
  }

  /** Returns in how many live documents each term of a field stands, as int32. */
  public static byte[] frequencies(IndexSearcher searcher, String field, String[] terms) throws IOException {
    ByteBuffer out = ByteBuffer.allocate(4 * terms.length).order(ByteOrder.LITTLE_ENDIAN);
    for (String term : terms) {
      out.putInt(searcher.count(new TermQuery(new Term(field, term))));
    }
    return out.array();
  }

  /** Returns what is stored of each id in turn: its length as int32, or -1 for an unknown id, and its UTF-8 bytes. */
  public static byte[] stored(IndexReader reader, String[] ids) throws IOException {
    byte[][] found = new byte[ids.length][];
    int size = 4 * ids.length;
    StoredFields fields = reader.storedFields();
    for (int i = 0; i < ids.length; i++) {
      int doc = first(reader, new BytesRef(ids[i]));
      String raw = doc < 0 ? null : fields.document(doc, STORED).get(RAW);
      found[i] = raw == null ? null : raw.getBytes(StandardCharsets.UTF_8);
      size += raw == null ? 0 : found[i].length;
    }
    ByteBuffer out = ByteBuffer.allocate(size).order(ByteOrder.LITTLE_ENDIAN);
    for (byte[] bytes : found) {
      out.putInt(bytes == null ? -1 : bytes.length);
      if (bytes != null) {
        out.put(bytes);
      }
    }
    return out.array();
  }

  /** Returns the number of the first live document with an id, -1 for an unknown one. */
  private static int first(IndexReader reader, BytesRef id) throws IOException {
    for (LeafReaderContext leaf : reader.leaves()) {
      Terms terms = leaf.reader().terms("id");
      TermsEnum walk = terms == null ? null : terms.iterator();
      if (walk == null || !walk.seekExact(id)) {
        continue;
      }
      Bits live = leaf.reader().getLiveDocs();
      PostingsEnum docs = walk.postings(null, PostingsEnum.NONE);
      for (int doc = docs.nextDoc(); doc != DocIdSetIterator.NO_MORE_DOCS; doc = docs.nextDoc()) {
        if (live == null || live.get(doc)) {
          return leaf.docBase + doc;
        }
      }
    }
    return -1;
  }
}
