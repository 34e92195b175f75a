"""The page: what it does (`studio`, `session`, `batch`) and how it looks (`page`, `markup`)."""
