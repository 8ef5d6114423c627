"""Other evaluation programs on the same questions and the same simulated servers, each in an environment of its own."""
