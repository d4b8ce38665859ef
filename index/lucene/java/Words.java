package org.retriever;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.apache.lucene.index.IndexReader;
import org.apache.lucene.index.LeafReader;
import org.apache.lucene.index.LeafReaderContext;
import org.apache.lucene.index.MultiTerms;
import org.apache.lucene.index.NumericDocValues;
import org.apache.lucene.index.PostingsEnum;
import org.apache.lucene.index.ReaderSlice;
import org.apache.lucene.index.Terms;
import org.apache.lucene.index.TermsEnum;
import org.apache.lucene.search.DocIdSetIterator;
import org.apache.lucene.util.Bits;
import org.apache.lucene.util.BytesRef;

/** What BM25 reads of some rows: all postings of `contents`, as the files in `bm25/` hold them. */
public final class Words {
  private static final String FIELD = "contents";
  private static final String TOKEN = "token";
  private static final int MANY = 255;  // a frequency from which on it stands among the exceptions
  private static final int BITS = 32;

  private final int rows;
  private final int[] lengths;
  private final byte[] norms;
  private final List<Terms> terms = new ArrayList<>();
  private final List<Terms> tokens = new ArrayList<>();
  private final List<ReaderSlice> slices = new ArrayList<>();
  private final List<ReaderSlice> tokenSlices = new ArrayList<>();
  private int[] rowOf = new int[0];  // of each document of the slices, -1 for none
  private int[] ends = new int[1024];
  private int[] starts = new int[1024];
  private byte[] text = new byte[8192];
  private short[] places = new short[8192];
  private byte[] frequencies = new byte[8192];
  private int[] exceptions = new int[8];
  private int[] tokenCounts = new int[1024];  // the number of a token, and how many rows have it
  private int live;
  private int withTokens;
  private int found;
  private int exceptional;

  private Words(int rows) {
    this.rows = rows;
    lengths = new int[rows];
    norms = new byte[rows];
  }

  /**
   * Returns the live rows from `first` up to `end`, little-endian: how many terms, bytes of their texts, postings,
   * exceptions and tokens there are, how many rows are alive, and how many have a token, as int32; of each row its length (int32), then its norm (byte); where the text of each term
   * ends (int32) and where its postings begin (int32, one more than terms); the rows of the postings (int16, from
   * `first`); the exceptions, each the place of a posting and its frequency (int32); of each of the encoder's tokens its
   * number and how many rows have it (int32); the texts; the frequencies (byte,
   * 255 for an exception).
   */
  public static byte[] of(IndexReader reader, long first, long end) throws IOException {
    Words words = new Words((int) (end - first));
    for (LeafReaderContext leaf : reader.leaves()) {
      words.take(leaf.reader(), first, end);
    }
    int count = words.terms.isEmpty() ? 0 : words.walk();
    int tokens = words.tokens.isEmpty() ? 0 : words.count();
    return words.packed(count, tokens);
  }

  /** Notes which documents of a segment are among the rows. */
  private void take(LeafReader leaf, long first, long end) throws IOException {
    Terms own = leaf.terms(FIELD);
    NumericDocValues values = leaf.getNumericDocValues("row");
    Terms ownTokens = leaf.terms(TOKEN);
    if (values == null) {
      return;
    }
    int base = rowOf.length;
    int[] all = Arrays.copyOf(rowOf, base + leaf.maxDoc());
    Arrays.fill(all, base, all.length, -1);
    Bits alive = leaf.getLiveDocs();
    NumericDocValues norm = leaf.getNormValues(FIELD);
    long before = -1;
    long row = -1;
    boolean any = false;
    for (int doc = values.nextDoc(); doc != DocIdSetIterator.NO_MORE_DOCS; doc = values.nextDoc()) {
      if (alive != null && !alive.get(doc)) {
        continue;
      }
      long value = values.longValue();  // that of the document's first chunk, which the others follow
      row = value == before ? row + 1 : value;
      before = value;
      if (row >= first && row < end) {
        all[base + doc] = (int) (row - first);
        any = true;
        live++;
        if (norm != null && norm.advanceExact(doc)) {
          norms[(int) (row - first)] = (byte) norm.longValue();
        }
      }
    }
    if (any) {
      rowOf = all;
      if (own != null) {
        slices.add(new ReaderSlice(base, leaf.maxDoc(), slices.size()));
        terms.add(own);
      }
      if (ownTokens != null) {
        tokenSlices.add(new ReaderSlice(base, leaf.maxDoc(), tokenSlices.size()));
        tokens.add(ownTokens);
      }
    }
  }

  /** Reads the postings; returns how many terms have any. */
  private int walk() throws IOException {
    TermsEnum all = new MultiTerms(terms.toArray(new Terms[0]), slices.toArray(new ReaderSlice[0])).iterator();
    PostingsEnum docs = null;
    long[] own = new long[1024];
    int bytes = 0;
    int count = 0;
    for (BytesRef term = all.next(); term != null; term = all.next()) {
      docs = all.postings(docs, PostingsEnum.FREQS);
      int n = 0;
      boolean ascending = true;
      for (int doc = docs.nextDoc(); doc != DocIdSetIterator.NO_MORE_DOCS; doc = docs.nextDoc()) {
        int row = rowOf[doc];
        if (row < 0) {
          continue;
        }
        if (n == own.length) {
          own = Arrays.copyOf(own, 2 * n);
        }
        own[n] = (long) row << BITS | docs.freq();
        ascending &= n == 0 || own[n - 1] < own[n];
        n++;
      }
      if (n == 0) {
        continue;
      }
      if (!ascending) {  // segments need not stand in the order of their rows
        Arrays.sort(own, 0, n);
      }
      text = room(text, bytes + term.length);
      System.arraycopy(term.bytes, term.offset, text, bytes, term.length);
      bytes += term.length;
      if (count + 1 >= ends.length) {
        ends = Arrays.copyOf(ends, 2 * ends.length);
        starts = Arrays.copyOf(starts, 2 * starts.length);
      }
      ends[count] = bytes;
      starts[count] = found;
      count++;
      add(own, n);
    }
    return count;
  }

  /** Counts the rows of each token; returns how many tokens have any. */
  private int count() throws IOException {
    TermsEnum all = new MultiTerms(tokens.toArray(new Terms[0]), tokenSlices.toArray(new ReaderSlice[0])).iterator();
    PostingsEnum docs = null;
    boolean[] has = new boolean[rows];
    int count = 0;
    for (BytesRef term = all.next(); term != null; term = all.next()) {
      docs = all.postings(docs, PostingsEnum.NONE);
      int n = 0;
      for (int doc = docs.nextDoc(); doc != DocIdSetIterator.NO_MORE_DOCS; doc = docs.nextDoc()) {
        int row = rowOf[doc];
        if (row >= 0) {
          n++;
          withTokens += has[row] ? 0 : 1;
          has[row] = true;
        }
      }
      if (n == 0) {
        continue;
      }
      if (2 * count + 2 > tokenCounts.length) {
        tokenCounts = Arrays.copyOf(tokenCounts, 2 * tokenCounts.length);
      }
      tokenCounts[2 * count] = Integer.parseInt(term.utf8ToString());
      tokenCounts[2 * count + 1] = n;
      count++;
    }
    return count;
  }

  private void add(long[] own, int n) {
    if (found + n > places.length) {
      int size = Math.max(found + n, places.length + places.length / 2);
      places = Arrays.copyOf(places, size);
      frequencies = Arrays.copyOf(frequencies, size);
    }
    for (int i = 0; i < n; i++) {
      int row = (int) (own[i] >>> BITS);
      int frequency = (int) own[i];
      places[found] = (short) row;
      frequencies[found] = (byte) Math.min(frequency, MANY);
      lengths[row] += frequency;
      if (frequency >= MANY) {
        if (2 * exceptional + 2 > exceptions.length) {
          exceptions = Arrays.copyOf(exceptions, 2 * exceptions.length);
        }
        exceptions[2 * exceptional] = found;
        exceptions[2 * exceptional + 1] = frequency;
        exceptional++;
      }
      found++;
    }
  }

  private static byte[] room(byte[] bytes, int size) {
    return size <= bytes.length ? bytes : Arrays.copyOf(bytes, Math.max(size, 2 * bytes.length));
  }

  private byte[] packed(int count, int tokens) {
    int bytes = count == 0 ? 0 : ends[count - 1];
    starts[count] = found;
    int size = 28 + 5 * rows + 4 * count + 4 * (count + 1) + 3 * found + 8 * (exceptional + tokens) + bytes;
    ByteBuffer out = ByteBuffer.allocate(size).order(ByteOrder.LITTLE_ENDIAN);
    out.putInt(count).putInt(bytes).putInt(found).putInt(exceptional);
    out.putInt(tokens).putInt(live).putInt(withTokens);
    putInts(out, lengths, rows);
    out.put(norms);
    putInts(out, ends, count);
    putInts(out, starts, count + 1);
    out.asShortBuffer().put(places, 0, found);
    out.position(out.position() + 2 * found);
    putInts(out, exceptions, 2 * exceptional);
    putInts(out, tokenCounts, 2 * tokens);
    out.put(text, 0, bytes).put(frequencies, 0, found);
    return out.array();
  }

  private static void putInts(ByteBuffer out, int[] numbers, int count) {
    out.asIntBuffer().put(numbers, 0, count);
    out.position(out.position() + 4 * count);
  }
}
