# A task that has a core of its own.

job "cores" {
  type = "service"

  update {
    min_healthy_time  = "0s"
    healthy_deadline  = "45s"
    progress_deadline = "1m"
    health_check      = "task_states"
  }

  group "cores" {
    task "main" {
      driver       = "promptflow"
      kill_timeout = "1s"

      config {
        environment = "busybox"
        command     = "/bin/sleep"
        args        = ["infinity"]
      }

      resources {
        cores  = 1
        memory = 32
      }
    }
  }
}
