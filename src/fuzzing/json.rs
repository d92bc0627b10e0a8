//! Bytes as JSON text: against serde_json, and there and back again.

use crate::error::ErrorKind;
use crate::wire::Recipient;

use super::json_reading::{Json, depth, too_deep};
use super::reading;
use super::wire::{Wire, good_error, went_out};
use super::{Verdict, ensure};

const TO: Recipient<'static> = Recipient::Group("room");

pub(super) fn check(wire: &dyn Wire, input: &[u8]) -> Verdict {
    text(wire, input)?;
    // As one value in an object, which few texts are by chance.
    text(wire, &[b"{\"v\":", input, b"}"].concat())
}

fn text(wire: &dyn Wire, text: &[u8]) -> Verdict {
    let shown = String::from_utf8_lossy(text);
    let theirs: Result<Json, _> = serde_json::from_slice(text);
    match (wire.encode_json(text, TO, usize::MAX), theirs) {
        (Ok(body), Ok(json)) => {
            let mut faults = Vec::new();
            json.faults("message", true, &mut faults);
            ensure!(
                faults.is_empty() && matches!(json, Json::Object(_)),
                "{shown} was taken in spite of {faults:?}"
            );
            accepted(wire, text, &body, Some(&json))
        }
        (Ok(body), Err(error)) => {
            // serde_json stops one level before us.
            ensure!(
                too_deep(&error) && depth(text) == 128,
                "{shown} was taken; serde_json says {error}"
            );
            accepted(wire, text, &body, None)
        }
        (Err(error), Ok(json)) => {
            good_error(&error, "message")?;
            let said = error.to_string();
            if !matches!(json, Json::Object(_)) {
                ensure!(said.contains("one JSON object"), "{said}: {shown}");
                return Ok(());
            }
            let mut faults = Vec::new();
            json.faults("message", true, &mut faults);
            let explained = faults.iter().any(|(path, word)| {
                // Of a path of many steps the middle is left out.
                let long = path.matches(['.', '[']).count() > 20;
                said.contains(word) && (long || said.starts_with(&format!("{path}: ")))
            });
            // An integer too large for 64 bits is a float to serde_json.
            let a_float = json.has_float() && said.contains("is outside");
            ensure!(
                explained || a_float,
                "refused with {said}, where {faults:?} is wrong with {shown}"
            );
            Ok(())
        }
        (Err(error), Err(_)) => {
            ensure!(
                error.kind() == ErrorKind::Invalid,
                "{:?} instead of Invalid: {error}",
                error.kind()
            );
            good_error(&error, "message")
        }
    }
}

/// A body that was made of JSON text.
fn accepted(wire: &dyn Wire, text: &[u8], body: &[u8], json: Option<&Json>) -> Verdict {
    let shown = String::from_utf8_lossy(text);
    let decoded = wire
        .decode(body.to_vec())
        .map_err(|error| format!("{shown} became no delivery: {error}: {body:02x?}"))?;
    let data = decoded.body.data();
    ensure!(
        reading::may_go_out(data),
        "{shown} became {data:02x?}, which must not go out"
    );
    went_out(wire, data, TO, body)?;
    let value = reading::value(data).ok_or("a message that is no value")?;
    if let Some(json) = json {
        ensure!(json.is(&value), "{shown} became {value:?}");
    }
    let size = wire.encode_json(text, TO, body.len() - 1);
    ensure!(
        size.is_err_and(|error| error.kind() == ErrorKind::TooLarge),
        "{shown} is larger than allowed, and was not refused for that"
    );
    // And back: bytes that JSON text could name are never refused by the view.
    let view = wire
        .json(&decoded.body)
        .map_err(|error| format!("{shown} has no view: {error}"))?;
    let again = wire.encode_json(view.as_bytes(), TO, usize::MAX);
    ensure!(
        again.is_ok_and(|again| again == body),
        "{shown} became {view}, which is another message"
    );
    Ok(())
}
