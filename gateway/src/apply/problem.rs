//! What is wrong with a file, and where.

use std::fmt;

/// One thing that is wrong: path, line and a sentence that never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `providers[2].server_url`; empty for the file as a whole.
    pub path: String,
    /// Line of the file, from 1 on, where it is known.
    pub line: Option<u64>,
    /// What is wrong.
    pub message: String,
}

impl Problem {
    pub(super) fn of_file(line: Option<u64>, message: String) -> Self {
        Self {
            path: String::new(),
            line,
            message,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}
