"""The exchange dialect: the REST and streams that most bots speak."""
