//! Questions on standard output, and answers from standard input, one a line.

use std::io::{self, BufRead, Write};

/// The person, or the file, that answers.
pub struct Questions<R> {
    input: R,
}

impl<R: BufRead> Questions<R> {
    /// Returns questions that `input` answers.
    pub fn new(input: R) -> Questions<R> {
        Questions { input }
    }

    /// Asks until the answer can be used. An empty answer is the default.
    ///
    /// # Errors
    ///
    /// The input has ended.
    pub fn ask<T>(
        &mut self,
        question: &str,
        default: &str,
        mut accept: impl FnMut(&[u8]) -> Result<T, String>,
    ) -> Result<T, String> {
        loop {
            match default {
                "" => print!("{question}: "),
                default => print!("{question} [{default}]: "),
            }
            let _ = io::stdout().flush();
            let answer = self.line(question)?;
            let answer = match answer.trim_ascii() {
                b"" => default.as_bytes(),
                answer => answer,
            };
            match accept(answer) {
                Ok(accepted) => return Ok(accepted),
                Err(reason) => println!("    {reason}"),
            }
        }
    }

    /// Asks a question whose answer is no unless it begins with y.
    ///
    /// # Errors
    ///
    /// The input has ended.
    pub fn yes_or_no(&mut self, question: &str) -> Result<bool, String> {
        self.ask(&format!("{question} [y/N]"), "", |answer| {
            match answer.to_ascii_lowercase().as_slice() {
                b"y" | b"yes" => Ok(true),
                b"" | b"n" | b"no" => Ok(false),
                _ => Err("y or n".into()),
            }
        })
    }

    fn line(&mut self, question: &str) -> Result<Vec<u8>, String> {
        let mut line = Vec::new();
        let ended = |reason: &str| {
            println!();
            format!("no answer to '{question}': {reason}. Without questions: lsyncd -init SRC TRG")
        };
        match self.input.read_until(b'\n', &mut line) {
            Ok(0) => Err(ended("the input has ended")),
            Ok(_) => Ok(line),
            Err(error) => Err(ended(&crate::log::reason(&error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_repeated_until_its_answer_can_be_used() {
        let mut questions = Questions::new(&b"x\n 7 \n\nmaybe\nYES\n"[..]);
        let number = |answer: &[u8]| {
            let text = String::from_utf8_lossy(answer);
            text.parse::<u32>().map_err(|error| error.to_string())
        };
        assert_eq!(questions.ask("number", "", number), Ok(7));
        assert_eq!(questions.ask("number", "5", number), Ok(5));
        assert_eq!(questions.yes_or_no("sure?"), Ok(true));
        assert!(questions.yes_or_no("sure?").is_err());
    }
}
