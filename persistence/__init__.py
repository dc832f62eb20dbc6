"""What is never lost: events, the write-ahead log, the journal, and what is folded from them."""
