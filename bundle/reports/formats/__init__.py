"""A run in the formats of other tools, for their readers and for habits formed with them.

Each module makes an `Export` of a `RecordedRun` and says in it what its format has no way to say. What all have to get
right in their own way: a question without a reply is no wrong answer.
"""
