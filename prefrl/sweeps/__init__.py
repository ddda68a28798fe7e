"""Many runs of one question, on one machine or on a cluster of Ray, and what they come to together."""
