"""Giving a Linux device its runtime: which wheels fit (`choose`), where they come from (`wheels`)."""
