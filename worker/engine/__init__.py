"""The Engine protocol and its implementations; torch lives here."""
