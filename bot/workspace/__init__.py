"""A Slack workspace on this machine, to try the product in and to test it; knows nothing of the product."""
