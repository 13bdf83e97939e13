//! `dewar logs`.

use crate::cli::command::{Action, Args, Command, Flag, Matches};
use crate::cli::error::Error;
use crate::cli::terminal::copy_output;
use crate::cli::time;
use crate::http::api::container::{CONTAINER_INSPECT, CONTAINER_LOGS, InspectQuery, LogsQuery};

static DETAILS: Flag = Flag::switch("details", "Show the attributes the log driver was given");
static FOLLOW: Flag = Flag::switch("follow", "Go on with what the container prints next").short('f');
static SINCE: Flag =
    Flag::value("since", "TIME", "Start at a time (2026-01-02T15:04:05Z) or so long ago (10m)");
static TAIL: Flag = Flag::value("tail", "COUNT", "Show so many lines from the end").short('n').default("all");
static TIMESTAMPS: Flag = Flag::switch("timestamps", "Show when each line was printed").short('t');
static UNTIL: Flag = Flag::value("until", "TIME", "Stop at a time, written as for --since");

pub static LOGS: Command = Command {
    names: &["logs", "container logs"],
    summary: "Show what a container has printed",
    usage: "[OPTIONS] CONTAINER",
    about: "",
    flags: &[&DETAILS, &FOLLOW, &SINCE, &TAIL, &TIMESTAMPS, &UNTIL],
    args: Args::exactly(1),
    example: "dewar logs -f --tail 20 web",
    usage_code: 1,
    plan: |matches| {
        let query = request(matches)?;
        let container = matches.args[0].clone();
        Action::call(move |context| {
            // Only the container knows whether its log is framed.
            let inspect = context.call(&CONTAINER_INSPECT, &[&container], &InspectQuery::default(), &())?;
            let reader = context.stream(&CONTAINER_LOGS, &[&container], &query, &())?;
            copy_output(reader, inspect.config.tty).map(|()| 0)
        })
    },
};

fn request(matches: &Matches) -> Result<LogsQuery, Error> {
    let tail = |text: &str| match text {
        "all" => Ok(text.to_owned()),
        _ if text.parse::<i64>().is_ok() => Ok(text.to_owned()),
        _ => Err("expected a number of lines, or all".to_owned()),
    };
    Ok(LogsQuery {
        stdout: true,
        stderr: true,
        follow: matches.is(&FOLLOW),
        since: time::given(matches, &SINCE)
            .map_err(|cause| Error::local("invalid value for \"since\"", cause))?,
        until: time::given(matches, &UNTIL)
            .map_err(|cause| Error::local("invalid value for \"until\"", cause))?,
        timestamps: matches.is(&TIMESTAMPS),
        tail: matches.read(&TAIL, tail)?.unwrap_or_default(),
        details: matches.is(&DETAILS),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::matches_of;

    #[test]
    fn flags_become_the_query() {
        let plain = request(&matches_of("logs web")).unwrap();
        assert!(plain.stdout && plain.stderr && !plain.follow);
        assert_eq!(plain.tail, "all");
        let full = request(&matches_of("logs -ft --tail 5 --since 100 --until 200.5 --details web")).unwrap();
        assert!(full.follow && full.timestamps && full.details);
        assert_eq!(
            (full.tail.as_str(), full.since.as_str(), full.until.as_str()),
            ("5", "100", "200.500000000")
        );
        assert!(request(&matches_of("logs --tail some web")).is_err());
        assert!(request(&matches_of("logs --since someday web")).is_err());
    }
}
