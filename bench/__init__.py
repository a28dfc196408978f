"""Timed cases beside their peers. Every case compares the answers before it speaks of time."""
