//! Borrowed constants, each with its origin.
