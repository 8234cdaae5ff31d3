//! The text of a rule.

use std::time::Duration;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::sim::fault::Action;
use crate::sim::fault::Rule;
use crate::sim::fault::Target;
use crate::sim::fault::Which;

/// Longest rule.
const MOST: usize = 1024;

/// One thing in the parentheses of an action.
#[derive(Debug, PartialEq, Eq)]
enum Argument {
    /// A number, a time, a name, or a text in quotes.
    Plain(String),
    /// `name=value`.
    Named(String, String),
}

pub(super) fn rule(text: &str) -> Result<Rule> {
    parse(text).context(|| format!("the rule {:?}", text.chars().take(200).collect::<String>()))
}

fn parse(text: &str) -> Result<Rule> {
    if text.len() > MOST {
        return Err(wrong(format!("longer than {MOST} bytes")));
    }
    let Some((place, action)) = text.split_once('=') else {
        return Err(wrong("expected POINT=ACTION"));
    };
    let (place, which) = match place.trim().split_once(':') {
        Some((place, which)) => (place, self::which(which.trim())?),
        None => (place.trim(), Which::Between(1, u64::MAX)),
    };
    let (point, id) = match place.split_once('#') {
        Some((point, id)) => (point, Some(number(id)?)),
        None => (place, None),
    };
    Ok(Rule { point: self::point(point.trim())?, id, which, action: self::action(action.trim())? })
}

fn point(text: &str) -> Result<String> {
    let parts: Vec<&str> = text.split('.').collect();
    let is_name = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    let fits = match parts.split_last() {
        Some((last, before)) => (*last == "*" || is_name(last)) && before.iter().all(|part| is_name(part)),
        None => false,
    };
    if fits {
        Ok(text.to_owned())
    } else {
        Err(wrong(format!("{text:?} is no point such as nfc.read or soap.*")))
    }
}

fn which(text: &str) -> Result<Which> {
    let which = if let Some(step) = text.strip_prefix('/') {
        Which::Every(number(step)?)
    } else if let Some(first) = text.strip_suffix('+') {
        Which::Between(number(first)?, u64::MAX)
    } else if let Some((first, last)) = text.split_once('-') {
        Which::Between(number(first)?, number(last)?)
    } else {
        Which::Between(number(text)?, number(text)?)
    };
    match which {
        Which::Every(0) | Which::Between(0, _) => Err(wrong("counting begins with 1")),
        Which::Between(first, last) if first > last => Err(wrong(format!("{first} comes after {last}"))),
        which => Ok(which),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    let digits = Some(text.trim()).filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|t| t.parse().ok()).ok_or_else(|| wrong(format!("{text:?} is no number that fits here")))
}

fn action(text: &str) -> Result<Action> {
    let (name, arguments) = match text.split_once('(') {
        Some((name, rest)) => match rest.strip_suffix(')') {
            Some(inside) => (name.trim(), self::arguments(inside)?),
            None => return Err(wrong("an action without its closing parenthesis")),
        },
        None => (text, Vec::new()),
    };
    use Argument::Plain;
    Ok(match (name, arguments.as_slice()) {
        ("error", [Plain(code)]) => Action::Error { code: self::code(code)?, text: None },
        ("error", [Plain(code), Plain(text)]) => {
            Action::Error { code: self::code(code)?, text: Some(text.clone()) }
        }
        ("refuse", []) => Action::Refuse,
        ("cut", []) => Action::Cut,
        ("silence", []) => Action::Silence,
        ("short", []) => Action::Short { silence: false },
        ("short", [Plain(then)]) if then == "silence" => Action::Short { silence: true },
        ("magic", []) => Action::Magic,
        ("stray", []) => Action::Stray,
        ("shutdown", []) => Action::Shutdown,
        ("move", []) => Action::Move(Target::Next),
        ("move", [Plain(host)]) => Action::Move(Target::Host(self::host(host)?)),
        ("delay", [Plain(time)]) => Action::Delay(self::time(time)?),
        ("status", [Plain(status)]) => Action::Status(self::status(status)?),
        ("fault", [Plain(name), fields @ ..]) => fault(name, fields)?,
        _ => return Err(wrong(format!("{text:?} is no action"))),
    })
}

/// Codes that are no error would make a rule that does nothing.
fn code(text: &str) -> Result<u64> {
    match number(text)? {
        0 => Err(wrong("0 is no error")),
        code => Ok(code),
    }
}

/// Hosts are counted from one.
fn host(text: &str) -> Result<usize> {
    let host: usize = number(text)?;
    host.checked_sub(1).ok_or_else(|| wrong("hosts are counted from 1"))
}

fn status(text: &str) -> Result<u16> {
    let status = number(text)?;
    if (100..600).contains(&status) {
        Ok(status)
    } else {
        Err(wrong(format!("{status} is no status of HTTP")))
    }
}

fn fault(name: &str, fields: &[Argument]) -> Result<Action> {
    let fields = fields.iter().map(|field| match field {
        Argument::Named(name, value) => Ok((name.clone(), value.clone())),
        Argument::Plain(text) => Err(wrong(format!("{text:?} is no field of a fault: expected FIELD=VALUE"))),
    });
    Ok(Action::Fault { name: name.to_owned(), fields: fields.collect::<Result<_>>()? })
}

/// A time with its unit.
pub(super) fn time(text: &str) -> Result<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let unit = match unit.trim() {
        "us" => Duration::from_micros(1),
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        _ => return Err(wrong(format!("{text:?} is no time such as 50us, 2ms or 1s"))),
    };
    let time = unit.saturating_mul(number(count).unwrap_or(u32::MAX));
    if time <= LONGEST { Ok(time) } else { Err(wrong(format!("{text:?} is longer than {LONGEST:?}"))) }
}

/// Longer than any client waits.
const LONGEST: Duration = Duration::from_secs(3600);

/// What stands between commas. Texts in quotes may hold commas and parentheses.
fn arguments(text: &str) -> Result<Vec<Argument>> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (first, after) = value(rest)?;
        let (argument, after) = match after.strip_prefix('=') {
            Some(behind) => {
                let (second, after) = value(behind.trim_start())?;
                (Argument::Named(first, second), after)
            }
            None => (Argument::Plain(first), after),
        };
        found.push(argument);
        rest = match after.strip_prefix(',') {
            Some(more) if !more.trim().is_empty() => more.trim(),
            None if after.is_empty() => "",
            _ => return Err(wrong(format!("expected a comma and more at {after:?}"))),
        };
    }
    Ok(found)
}

/// A word or a text in quotes at the front, and what follows it.
fn value(text: &str) -> Result<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(['=', ',', '"', '(']).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        let word = word.trim();
        return if word.is_empty() {
            Err(wrong(format!("expected a value at {text:?}")))
        } else {
            Ok((word.to_owned(), rest))
        };
    };
    let mut content = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                content.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Ok((content, quoted.get(at + 1..).unwrap_or_default().trim_start())),
            _ => content.push(c),
        }
    }
    Err(wrong("a text without its closing quote"))
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Action {
        rule(text).unwrap().action
    }

    #[test]
    fn every_action_is_read() {
        let error = |code, text: Option<&str>| Action::Error { code, text: text.map(str::to_owned) };
        assert_eq!(of("nfc.read:3=error(5)"), error(5, None));
        assert_eq!(of(r#"nfc.read = error( 5 , "a, (\"b\") \\ = c" )"#), error(5, Some(r#"a, ("b") \ = c"#)));
        assert_eq!(
            (of("a=refuse"), of("a=cut"), of("a=silence")),
            (Action::Refuse, Action::Cut, Action::Silence)
        );
        assert_eq!(
            (of("a=magic"), of("a=stray"), of("a=shutdown")),
            (Action::Magic, Action::Stray, Action::Shutdown)
        );
        assert_eq!(
            (of("a=move"), of("a = move( 2 )")),
            (Action::Move(Target::Next), Action::Move(Target::Host(1)))
        );
        assert_eq!(of("a=short"), Action::Short { silence: false });
        assert_eq!(of("a=short(silence)"), Action::Short { silence: true });
        assert_eq!(of("a=delay(2ms)"), Action::Delay(Duration::from_millis(2)));
        assert_eq!(of("folder:2=status(503)"), Action::Status(503));
        let fields =
            vec![("privilege".to_owned(), "Vm.X".to_owned()), ("object".to_owned(), "vm 1".to_owned())];
        assert_eq!(
            of("soap.NfcGetVmFiles=fault(NoPermission,privilege=Vm.X,object=\"vm 1\")"),
            Action::Fault { name: "NoPermission".to_owned(), fields }
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for text in [
            "",
            "nfc.read",
            "=cut",
            "nfc..read=cut",
            "nfc.*.read=cut",
            "a b=cut",
            "a=",
            "a=nothing",
            "a=cut(1)",
            "a=error",
            "a=error()",
            "a=error(0)",
            "a=error(x)",
            "a=error(5,)",
            "a=error(5,\"x)",
            "a=error(5",
            "a=error(18446744073709551616)",
            "a:0=cut",
            "a:5-3=cut",
            "a:/0=cut",
            "a:-1=cut",
            "a:+1=cut",
            "a#x=cut",
            "a=delay(2)",
            "a=delay(ms)",
            "a=delay(2h)",
            "a=delay(4000s)",
            "a=move(0)",
            "a=move()x",
            "a=move(one)",
            "a=move(1,2)",
            "a=status(99)",
            "a=status(70000)",
            "a=fault()",
            "a=fault(X,y)",
            "a=short(noise)",
            &format!("a=error(5,\"{}\")", "x".repeat(MOST)),
        ] {
            let e = rule(text).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidArgument, "{text}");
            assert!(e.to_string().starts_with("the rule "), "{e}");
        }
    }
}
