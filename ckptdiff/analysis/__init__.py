"""Pure work on records and bytes: digests, identity, coverage, alignment, statistics.

Nothing here judges (that is for `rules`), prints, or knows a front end; bytes come in
through `sources`, results leave as frozen records.
"""
