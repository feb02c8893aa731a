//! How much of what a request names is kept: the same numbers stand in the description of the API.

use super::error::ApiError;

/// Refuses a text that is longer than `most` characters, or that could steer the terminal on which it is shown.
pub(in crate::api) fn check_text(field: &str, text: Option<&str>, most: usize) -> Result<(), ApiError> {
    match text {
        Some(text) if text.chars().count() > most || text.chars().any(char::is_control) => {
            let why = format_args!("has at most {most} characters, and no control characters");
            Err(ApiError::invalid(field, why))
        }
        _ => Ok(()),
    }
}

/// Refuses a list of more than `most` entries.
pub(in crate::api) fn check_count(field: &str, count: usize, most: usize) -> Result<(), ApiError> {
    if count > most {
        let why = format_args!("at most {most} entries are taken at a time; the request has {count}");
        return Err(ApiError::invalid(field, why));
    }
    Ok(())
}
