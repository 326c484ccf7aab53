"""Tests of dynmech and solvers."""
