//! A pod's life as a table of sentences, played against a runtime of a few lines.

mod ending;
mod restarts;
mod sim;
mod starting;
