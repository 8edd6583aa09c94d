//! JSON as in the cases. Strings are bytes: a name that is not UTF-8 is written with lone
//! surrogates (`\udcff` is the byte 255), which libraries refuse.

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(Vec<u8>),
    List(Vec<Json>),
    /// In the order of the text.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads one value.
    pub fn parse(text: &[u8]) -> Result<Json, String> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value()?;
        reader.blanks();
        if reader.at == text.len() {
            Ok(value)
        } else {
            reader.wrong("the end")
        }
    }

    /// The member of an object.
    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// Returns the items of a list, or none for other values.
    pub fn items(&self) -> &[Json] {
        match self {
            Json::List(items) => items,
            _ => &[],
        }
    }

    /// Returns the bytes of a string.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the number.
    pub fn number(&self) -> Option<f64> {
        match self {
            Json::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// Returns true if the member exists and is true.
    pub fn on(&self, key: &str) -> bool {
        self.get(key) == Some(&Json::Bool(true))
    }

    /// Returns the items of a list of strings, or none if there is no such member.
    pub fn texts(&self, key: &str) -> Vec<Vec<u8>> {
        let items = self.get(key).map_or(&[][..], Json::items);
        items
            .iter()
            .filter_map(Json::bytes)
            .map(Vec::from)
            .collect()
    }
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

impl Reader<'_> {
    fn wrong<T>(&self, wanted: &str) -> Result<T, String> {
        Err(format!("no JSON: {wanted} expected at byte {}", self.at))
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn skip(&mut self, word: &str) -> bool {
        self.blanks();
        let there = self.text[self.at..].starts_with(word.as_bytes());
        self.at += if there { word.len() } else { 0 };
        there
    }

    fn value(&mut self) -> Result<Json, String> {
        self.blanks();
        match self.peek() {
            Some(b'"') => Ok(Json::Text(self.string()?)),
            Some(b'[') => self.list(),
            Some(b'{') => self.object(),
            _ if self.skip("null") => Ok(Json::Null),
            _ if self.skip("true") => Ok(Json::Bool(true)),
            _ if self.skip("false") => Ok(Json::Bool(false)),
            _ => self.number(),
        }
    }

    fn number(&mut self) -> Result<Json, String> {
        let rest = &self.text[self.at..];
        let part = |byte: &&u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
        let length = rest.iter().take_while(part).count();
        let number = std::str::from_utf8(&rest[..length]).ok();
        match number.and_then(|text| text.parse().ok()) {
            Some(number) => {
                self.at += length;
                Ok(Json::Number(number))
            }
            None => self.wrong("a value"),
        }
    }

    fn list(&mut self) -> Result<Json, String> {
        self.at += 1;
        let mut items = Vec::new();
        if self.skip("]") {
            return Ok(Json::List(items));
        }
        loop {
            items.push(self.value()?);
            if self.skip("]") {
                return Ok(Json::List(items));
            }
            if !self.skip(",") {
                return self.wrong("a comma");
            }
        }
    }

    fn object(&mut self) -> Result<Json, String> {
        self.at += 1;
        let mut members = Vec::new();
        if self.skip("}") {
            return Ok(Json::Object(members));
        }
        loop {
            self.blanks();
            let key = String::from_utf8_lossy(&self.string()?).into_owned();
            if !self.skip(":") {
                return self.wrong("a colon");
            }
            members.push((key, self.value()?));
            if self.skip("}") {
                return Ok(Json::Object(members));
            }
            if !self.skip(",") {
                return self.wrong("a comma");
            }
        }
    }

    fn string(&mut self) -> Result<Vec<u8>, String> {
        if !self.skip("\"") {
            return self.wrong("a text");
        }
        let mut text = Vec::new();
        loop {
            let Some(byte) = self.peek() else {
                return self.wrong("the end of a text");
            };
            self.at += 1;
            match byte {
                b'"' => return Ok(text),
                b'\\' => self.escape(&mut text)?,
                _ => text.push(byte),
            }
        }
    }

    fn escape(&mut self, into: &mut Vec<u8>) -> Result<(), String> {
        let Some(byte) = self.peek() else {
            return self.wrong("an escape");
        };
        self.at += 1;
        into.push(match byte {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 8,
            b'f' => 12,
            b'u' => return self.unicode(into),
            other => other,
        });
        Ok(())
    }

    fn unicode(&mut self, into: &mut Vec<u8>) -> Result<(), String> {
        let first = self.hex()?;
        let character = match first {
            0xdc80..=0xdcff => {
                into.push((first - 0xdc00) as u8);
                return Ok(());
            }
            0xd800..=0xdbff if self.text[self.at..].starts_with(b"\\u") => {
                self.at += 2;
                let second = self.hex()?;
                0x10000 + ((first - 0xd800) << 10) + (second.wrapping_sub(0xdc00) & 0x3ff)
            }
            other => other,
        };
        let Some(character) = char::from_u32(character) else {
            return self.wrong("a character");
        };
        into.extend(character.to_string().bytes());
        Ok(())
    }

    fn hex(&mut self) -> Result<u32, String> {
        let digits = self.text.get(self.at..self.at + 4);
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
            Some(number) => {
                self.at += 4;
                Ok(number)
            }
            None => self.wrong("four hexadecimal digits"),
        }
    }
}

#[test]
fn all_of_json_is_read() {
    let text = br#" { "a" : [1, -2.5, true, null, "x\n\u00e9\ud83d\ude00\udcff\"\\"], "b" : {} } "#;
    let json = Json::parse(text).unwrap();
    let list = json.get("a").unwrap().items();
    assert_eq!(list[1], Json::Number(-2.5));
    assert_eq!(list[3], Json::Null);
    let wanted = ["x\né😀".as_bytes(), b"\xff\"\\"].concat();
    assert_eq!(list[4].bytes(), Some(&wanted[..]));
    assert_eq!(json.get("b"), Some(&Json::Object(Vec::new())));
    for wrong in ["", "[1", "{\"a\" 1}", "[1] 2", "\"x", "nul", "\"\\u12\""] {
        assert!(Json::parse(wrong.as_bytes()).is_err(), "{wrong}");
    }
}
