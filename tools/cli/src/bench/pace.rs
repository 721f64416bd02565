//! When requests are to be sent.

use std::time::Duration;

/// Request `n` is due `n / rate` after the start; without a rate, as soon as there is room.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    rate: Option<f64>,
    sent: u64,
}

impl Pace {
    /// So many requests a second; `None` for as many as there is room for.
    pub fn new(rate: Option<f64>) -> Self {
        Self { rate, sent: 0 }
    }

    /// When the next request was to be sent, if that is not after `now` (both since the start).
    pub fn due(&self, now: Duration) -> Option<Duration> {
        let Some(_) = self.rate else { return Some(now) };
        Some(self.next()).filter(|due| *due <= now)
    }

    /// When the next request is to be sent.
    pub fn next(&self) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(self.sent as f64 / rate))
    }

    /// Notes that it was.
    pub fn advance(&mut self) {
        self.sent += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_their_own_time_however_late_we_are() {
        let ms = Duration::from_millis;
        let mut pace = Pace::new(Some(100.0));
        assert_eq!(pace.due(ms(0)), Some(ms(0)));
        pace.advance();
        assert_eq!(pace.due(ms(9)), None);
        // A stall of 25 ms: two requests are due, each counted from when it should have gone.
        assert_eq!(pace.due(ms(35)), Some(ms(10)));
        pace.advance();
        assert_eq!(pace.due(ms(35)), Some(ms(20)));
        pace.advance();
        pace.advance();
        assert_eq!((pace.due(ms(35)), pace.next()), (None, ms(40)));
    }

    #[test]
    fn without_a_rate_it_is_always_time() {
        let mut pace = Pace::new(None);
        pace.advance();
        let now = Duration::from_millis(3);
        assert_eq!(pace.due(now), Some(now));
    }
}
