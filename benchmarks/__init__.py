"""How fast an evaluation is, against a server that behaves like a real one and costs next to nothing itself."""
