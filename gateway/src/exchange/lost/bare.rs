//! The end of a lost exchange for which there is no room.

use super::Settlement;

impl Settlement {
    /// Leaves the answer out of the terminal event; the chunks have it, and so does the count.
    pub fn strip(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.strip();
        }
        self.choices.clear();
    }
}
