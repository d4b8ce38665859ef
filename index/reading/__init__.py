"""What the reader of an index folder puts together: filters, fields, rows of documents, stored views, reasons."""
