"""The paper's suites, one file each: a table of tasks, and how their files are read."""
