"""Self-contained HTML pages: of an audit, a comparison, a fusion."""
