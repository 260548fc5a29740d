"""The query router: which index answers a query, by which model it is embedded, and what was measured on the way."""
