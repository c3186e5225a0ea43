//go:build unix && !race

package servertest

// raceDetector is whether these tests, and so the server too, run under the race detector.
const raceDetector = false
