//! Registry of principals and issuer of tokens.
