"""What an answer says in a sentence, and in which words."""
