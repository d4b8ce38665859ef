#!/usr/bin/env bash
# Train configs/train/trunk.yaml: negatives and teachers' scores first (each file continues where it was interrupted).
# RETRIEVER_DATA is the folder of the public pairs; SHARE the part of each file that is read (1: all); TEACHER the larger model.
set -euo pipefail
: "${RETRIEVER_DATA:?the folder that holds train/*.jsonl.gz}"
share=${SHARE:-1}
mkdir -p trunk-data
for name in squad-dev-1.1 medquad nq-open-oracle arxiv-title-abstract acl-title-abstract wiki-heading wiki-title-lead \
    debian-docs-heading foldoc; do
    pairs=trunk-data/$name.pairs.jsonl
    [ -e "$pairs" ] || zcat "$RETRIEVER_DATA/train/$name.jsonl.gz" | awk -v s="$share" 'int(NR * s) > int((NR - 1) * s)' \
        | python -c 'import json, sys; [print(json.dumps({k: json.loads(l)[k] for k in ("query", "positive")})) for l in sys.stdin]' > "$pairs"
    retriever mine "$pairs" --index "trunk-data/$name.index" -o "trunk-data/$name.mined.jsonl" --negatives 4
    retriever score "trunk-data/$name.mined.jsonl" -o "trunk-data/$name.jsonl.gz" \
        --teacher "${TEACHER:-st:sentence-transformers/all-mpnet-base-v2}" --teacher default --teacher bm25
done
retriever train configs/train/trunk.yaml "$@"
