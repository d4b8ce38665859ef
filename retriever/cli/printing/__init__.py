"""What a person sees on a terminal: records as text; nothing here prints."""
