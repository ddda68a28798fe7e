"""What text is learned from: examples, files and records, responses drawn, judged and ranked."""
