"""The rules that compare an impression with its findings, a file for each kind of mistake; `clinical.checks` lists them."""
