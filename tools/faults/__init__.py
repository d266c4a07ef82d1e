"""The fault drill: kill at random, resume, and compare with an uninterrupted run."""
