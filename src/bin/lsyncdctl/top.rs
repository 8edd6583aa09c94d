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
/// The number of refreshes between two requests of series.
const TREND_REFRESHES: usize = 10;
/// The maximum number of entries of the transfer log.
const MAX_LOG_ENTRIES: usize = 1000;
/// The number of syncs or entries that a page key moves.
const PAGE: isize = 10;
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
    for turn in 0.. {
        refresh(words, &mut link, &mut view);
        if turn % TREND_REFRESHES == 0 {
            refresh_trends(words, &mut link, &mut view);
        }
        refresh_log(words, &mut link, &mut view);
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
                        Pressed::ShowLog => refresh_log(words, &mut link, &mut view),
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
    Ok(())
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

/// Asks for the series. An older daemon has none.
fn refresh_trends(words: &Args, link: &mut Option<Client>, view: &mut View) {
    let verb = Verb::Trends {
        sync: words.sync.clone(),
    };
    if let Ok(reply) = ask(verb, words, link) {
        view.set_trends(reply.trends.map(|trends| *trends).unwrap_or_default());
    }
}

/// Asks for the transfer log, if it is shown.
fn refresh_log(words: &Args, link: &mut Option<Client>, view: &mut View) {
    if !view.shows_log() {
        return;
    }
    let verb = Verb::Log {
        sync: words.sync.clone(),
        path: None,
        since: 0.0,
        after: Default::default(),
        limit: Some(MAX_LOG_ENTRIES),
        newest: true,
    };
    match ask(verb, words, link) {
        Ok(reply) => view.set_log(reply.log.map(|log| *log).unwrap_or_default()),
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
    ShowLog,
    Do(Verb),
}

fn press(key: KeyEvent, view: &mut View) -> Pressed {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    if control && key.code == KeyCode::Char('c') {
        return Pressed::Leave;
    }
    if view.is_typing() {
        match key.code {
            KeyCode::Enter => view.set_typing(false),
            KeyCode::Esc => {
                view.set_typing(false);
                view.go_back();
            }
            KeyCode::Backspace => view.type_character(None),
            KeyCode::Char(character) if !control => view.type_character(Some(character)),
            _ => {}
        }
        return Pressed::Nothing;
    }
    view.set_message(String::new());
    match key.code {
        KeyCode::Char('q') => return Pressed::Leave,
        KeyCode::Esc if !view.go_back() => return Pressed::Leave,
        KeyCode::Up | KeyCode::Char('k') => view.choose(-1),
        KeyCode::Down | KeyCode::Char('j') => view.choose(1),
        KeyCode::PageUp => view.choose(-PAGE),
        KeyCode::PageDown => view.choose(PAGE),
        KeyCode::Home => view.choose(isize::MIN),
        KeyCode::End => view.choose(isize::MAX),
        KeyCode::Char('n') => view.choose_trouble(),
        KeyCode::Char('/') => view.set_typing(true),
        KeyCode::Char('?') => view.turn_keys(),
        KeyCode::Char('h') => view.turn_range(),
        KeyCode::Tab => {
            view.turn_tab();
            return Pressed::ShowLog;
        }
        // Without a selected sync a command would be for all.
        code => {
            let command = view.chosen().and_then(|sync| command(code, sync));
            return command.map_or(Pressed::Nothing, Pressed::Do);
        }
    }
    Pressed::Nothing
}

fn command(code: KeyCode, sync: String) -> Option<Verb> {
    let sync = Some(sync);
    Some(match code {
        KeyCode::Char('p') => Verb::Pause { sync },
        KeyCode::Char('r') => Verb::Resume { sync },
        KeyCode::Char('f') => Verb::Flush { sync },
        KeyCode::Char('t') => Verb::Retry { sync },
        // A full comparison may take hours, so it takes a capital letter.
        KeyCode::Char('S') => Verb::Resync { sync, path: None },
        _ => return None,
    })
}
