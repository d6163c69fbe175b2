"""What texts are judged by: words and ends of sentences in any script, stock phrases, markup, talk, lists."""
