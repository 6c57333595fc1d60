"""matrix: train on each set, test on each: does what one kind of edit teaches carry over?"""
