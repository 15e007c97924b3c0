// Package suite adapts the harness to Ginkgo and Gomega. It is the only package
// that knows them; cases are written against it.
//
// A suite is one value, made once in a test file:
//
//	var trial = suite.New("my image")
//
//	func TestMyImage(t *testing.T) { trial.Run(t) }
//
//	var _ = Describe("my image", func() {
//		It("serves a page", func(ctx SpecContext) {
//			vm := trial.Boot(ctx, trial.Load(ctx, "my.yml"))
//			Eventually(ctx, vm).Should(suite.Reach(boot.Ready))
//			…
//		}, SpecTimeout(5*time.Minute))
//	})
//
// Matchers give up as soon as hope is lost: [Reach] and [Print] ask the machine
// for its verdict while they poll, so a panic fails the spec when it happens,
// with the panic as the message, not when some deadline ends.
//
// Machines are closed, and their evidence completed, when the scope that made
// them ends. After the last spec the run is written as run.json, junit.xml,
// report.html and summary.txt into the run's folder.
package suite
