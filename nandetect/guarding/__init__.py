"""`guard`: a step called as it is and watched, and the first bad call found among those since the last look."""
