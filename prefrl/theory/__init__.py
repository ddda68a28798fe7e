"""What is proved of learning from preferences, as small exact code: linear rewards, bandits, groups of annotators."""
