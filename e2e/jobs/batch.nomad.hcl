# A batch job that ends with the exit code it is told, and is not tried again.

variable "id" {
  type = string
}

variable "script" {
  type = string
}

job "batch" {
  id   = var.id
  type = "batch"

  group "batch" {
    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "main" {
      driver = "promptflow"

      config {
        environment = "busybox"
        command     = "/bin/sh"
        args        = ["-c", var.script]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
