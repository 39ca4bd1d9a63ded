"""`python -P -m ckptdiff.runtime.export`: quantizes a model with ModelOpt and writes the export.

The only package that imports modelopt. It runs as a child process and writes into the directory
that it is given: what is quantized was decided before, what becomes of the directory is decided
afterwards, both by `ckptdiff.jobs.exporting`.
"""
