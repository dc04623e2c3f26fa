"""The domain: words, rules and ports. No I/O, no clock, nothing third-party but pydantic."""
