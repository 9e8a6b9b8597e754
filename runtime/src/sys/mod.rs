//! System calls that no library covers, each with its safety note.
