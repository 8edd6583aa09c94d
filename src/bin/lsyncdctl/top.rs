//! The live view: requests the status twice a second, and executes commands of keys.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use lsyncd::control::protocol::Verb;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::args::Args;
use crate::client::{Client, ClientError};
use crate::view::View;

const REFRESH_INTERVAL: Duration = Duration::from_millis(500);
/// The time after which a daemon is shown as not answering.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of queue entries: more than any terminal has lines.
const MAX_ENTRIES: usize = 300;

/// Runs the view until the user quits.
pub fn run(words: &Args) -> Result<(), ClientError> {
    if !io::stdout().is_terminal() {
        return Err(ClientError::Refused("top needs a terminal".into()));
    }
    let link = open(words)?;
    let mut terminal = ratatui::init();
    let result = show(words, link, &mut terminal);
    ratatui::restore();
    result.map_err(|error| ClientError::Refused(format!("the terminal failed: {error}")))
}

fn open(words: &Args) -> Result<Client, ClientError> {
    Client::open(
        words.socket.as_deref(),
        Some(Instant::now() + REPLY_TIMEOUT),
    )
}

fn show(words: &Args, link: Client, terminal: &mut DefaultTerminal) -> io::Result<()> {
    let mut link = Some(link);
    let mut view = View::default();
    loop {
        refresh(words, &mut link, &mut view);
        terminal.draw(|frame| view.draw(frame))?;
        let next = Instant::now() + REFRESH_INTERVAL;
        while let left = next.saturating_duration_since(Instant::now())
            && event::poll(left)?
        {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    match press(key, &mut view) {
                        Pressed::Leave => return Ok(()),
                        Pressed::Nothing => {}
                        Pressed::Do(verb) => {
                            obey(verb, words, &mut link, &mut view);
                            refresh(words, &mut link, &mut view);
                        }
                    }
                    terminal.draw(|frame| view.draw(frame))?;
                }
                Event::Resize(..) => {
                    terminal.draw(|frame| view.draw(frame))?;
                }
                _ => {}
            }
        }
    }
}

/// Asks again; a daemon that went away is looked for again.
fn refresh(words: &Args, link: &mut Option<Client>, view: &mut View) {
    let verb = Verb::Status {
        sync: words.sync.clone(),
        entries: MAX_ENTRIES,
    };
    match ask(verb, words, link) {
        Ok(reply) => view.take(reply.status.unwrap_or_default()),
        Err(text) => view.lost(text),
    }
}

fn obey(verb: Verb, words: &Args, link: &mut Option<Client>, view: &mut View) {
    let said = match ask(verb, words, link) {
        Ok(reply) => reply.text,
        Err(text) => text,
    };
    view.set_message(said);
}

fn ask(
    verb: Verb,
    words: &Args,
    link: &mut Option<Client>,
) -> Result<lsyncd::control::protocol::Reply, String> {
    let mut open = match link.take() {
        Some(open) => open,
        None => self::open(words).map_err(describe)?,
    };
    open.deadline = Some(Instant::now() + REPLY_TIMEOUT);
    match open.ask(verb) {
        Err(ClientError::Refused(text)) => {
            *link = Some(open);
            Err(text)
        }
        Err(error) => Err(describe(error)),
        Ok(reply) => {
            *link = Some(open);
            Ok(reply)
        }
    }
}

fn describe(error: ClientError) -> String {
    match error {
        ClientError::NoDaemon(text) | ClientError::Refused(text) => text,
        ClientError::TimedOut => "the daemon does not answer".into(),
    }
}

enum Pressed {
    Leave,
    Nothing,
    Do(Verb),
}

fn press(key: KeyEvent, view: &mut View) -> Pressed {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let sync = view.chosen();
    match key.code {
        KeyCode::Char('c') if control => return Pressed::Leave,
        KeyCode::Char('q') | KeyCode::Esc => return Pressed::Leave,
        KeyCode::Up | KeyCode::Char('k') => view.choose(-1),
        KeyCode::Down | KeyCode::Char('j') => view.choose(1),
        KeyCode::Char('p') => return Pressed::Do(Verb::Pause { sync }),
        KeyCode::Char('r') => return Pressed::Do(Verb::Resume { sync }),
        KeyCode::Char('f') => return Pressed::Do(Verb::Flush { sync }),
        KeyCode::Char('t') => return Pressed::Do(Verb::Retry { sync }),
        // A comparison of everything may take hours, so it takes a capital letter.
        KeyCode::Char('S') => return Pressed::Do(Verb::Resync { sync, path: None }),
        _ => {}
    }
    Pressed::Nothing
}
