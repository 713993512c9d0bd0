"""`guard`: a step called as it is and watched, and the first bad call found among those since the last look.

Each call is recorded (`guard`, `quick`, `recorder`, `links`). Now and then (`schedule`) what calls returned is looked at (`screen`,
`finite`, `skips`). Where it is not finite, the calls run again until the first one at fault (`faults`, `replay`), which `locating`
explains. `watch` does this for one thread; `shared` is what threads have in common, `costs` what it took.
"""
